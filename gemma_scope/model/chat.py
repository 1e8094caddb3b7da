r"""The turn template of the instruction-tuned (-it) models.

    <bos><start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n

as in the chat template that is published with Gemma 3: text is trimmed, a
system text goes in front of the first user turn. Text of messages never turns
into control tokens. It generates nothing, and knows neither images nor tools.
"""

from collections.abc import Mapping, Sequence

from gemma_scope import errors
from gemma_scope.model import tokenizer as tokenizer_lib

# What callers write -> the role as the model knows it.
_ROLES = {"user": "user", "model": "model", "assistant": "model"}


def chat_ids(
  tokenizer: tokenizer_lib.Tokenizer,
  messages: str | Sequence[Mapping[str, str]],
) -> list[int]:
  """The token ids after which an -it model writes its answer.

  Args:
    tokenizer: Gemma's tokenizer.
    messages: What the user says, or the conversation so far: mappings with
      "role" and "content". An optional system message, then user and model
      (or assistant) in turn, the user last.

  Returns:
    Token ids, from <bos> to the newline after "model".

  Raises:
    TextError: An empty conversation, a message that is not role and content,
      or roles out of order.
  """
  if isinstance(messages, str):
    messages = [{"role": "user", "content": messages}]
  ids = [tokenizer.bos_id]
  for role, text in _turns(messages):
    ids.append(tokenizer.start_of_turn_id)
    ids += _plain(tokenizer, f"{role}\n{text}")
    ids.append(tokenizer.end_of_turn_id)
    ids += _plain(tokenizer, "\n")
  return [*ids, tokenizer.start_of_turn_id, *_plain(tokenizer, "model\n")]


def stop_ids(tokenizer: tokenizer_lib.Tokenizer) -> tuple[int, int]:
  """The ids at which generation stops: <eos> and <end_of_turn>."""
  return tokenizer.eos_id, tokenizer.end_of_turn_id


def _plain(tokenizer: tokenizer_lib.Tokenizer, text: str) -> list[int]:
  return tokenizer.encode(text, bos=False, allow_special=False)


def _turns(messages: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
  """(role, text) of each turn, the system text folded into the first."""
  said = [_role_and_content(message) for message in messages]
  system = ""
  if said and said[0][0] == "system":
    system = f"{said.pop(0)[1]}\n\n"
  roles = [role for role, _ in said]
  wanted = [("user", "model")[i % 2] for i in range(len(roles))]
  if not roles or roles != wanted or roles[-1] != "user":
    raise errors.TextError(
      "The roles of a conversation are out of order.",
      received=", ".join(["system"] * bool(system) + roles) or "no messages",
      instead="an optional system message, then user, model, user, …; the "
      "user last",
    )
  turns = [(role, text.strip()) for role, text in said]
  return [("user", system + turns[0][1]), *turns[1:]]


def _role_and_content(message: Mapping[str, str]) -> tuple[str, str]:
  if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
    raise errors.TextError(
      "A message is a role and its content.",
      received=f"{message!r}"[:200],
      instead='{"role": "user", "content": "Hello"}',
    )
  role, content = message["role"], message["content"]
  if role != "system" and role not in _ROLES:
    raise errors.TextError(
      "There is no such role.",
      received=repr(role),
      instead='"system" (first only), "user" or "model"',
    )
  if not isinstance(content, str):
    raise errors.TextError(
      "The content of a message is text; images are not supported.",
      received=f"{content!r}"[:200],
      instead="a string",
    )
  return _ROLES.get(role, role), content
