"""Labelled texts made from word lists and templates, without any download.

Each text has one of some classes, and belongs to a group: texts of one group
(of one adjective, one subject, one token) are held out together, so that what
is judged is not the word itself that was fitted. Templates make these tasks
easier than real text; compare dictionaries by them, not with published numbers.
"""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import itertools
import string

from jaxtyping import Bool, Int
import numpy as np

from gemma_scope.errors import ConfigError, TextError
from gemma_scope.model.language_model import LanguageModel

Split = tuple[Int[np.ndarray, " fitted"], Int[np.ndarray, " held"]]

POSITIVE = (
  "wonderful excellent brilliant delightful superb charming lovely perfect "
  "fantastic beautiful amazing great pleasant marvellous splendid impressive"
)
NEGATIVE = (
  "terrible awful dreadful horrible disappointing boring ugly poor disgusting "
  "bad miserable unpleasant appalling mediocre pathetic dull"
)
TOPICS = {
  "film": "film actor scene plot director soundtrack script camera",
  "food": "soup bread pasta cake salad sauce dessert cheese",
}
LANGUAGES = {
  "English": (
    "the woman|the boy|my father|the teacher|our neighbour|the doctor",
    "reads a book|buys some bread|opens the window|sees the house|drinks water",
    "in the evening|every day|today|in the city",
  ),
  "German": (
    "die Frau|der Junge|mein Vater|der Lehrer|unser Nachbar|der Arzt",
    "liest ein Buch|kauft etwas Brot|öffnet das Fenster|sieht das Haus|"
    "trinkt Wasser",
    "am Abend|jeden Tag|heute|in der Stadt",
  ),
  "French": (
    "la femme|le garçon|mon père|le professeur|notre voisin|le médecin",
    "lit un livre|achète du pain|ouvre la fenêtre|voit la maison|boit de l'eau",
    "le soir|tous les jours|aujourd'hui|dans la ville",
  ),
  "Spanish": (
    "la mujer|el niño|mi padre|el profesor|nuestro vecino|el médico",
    "lee un libro|compra pan|abre la ventana|ve la casa|bebe agua",
    "por la tarde|todos los días|hoy|en la ciudad",
  ),
}
WORDS = {
  "noun": (
    "table river mountain kitchen teacher garden window bottle letter engine "
    "forest island castle doctor village bridge pencil candle blanket mirror "
    "pocket basket ladder hammer"
  ),
  "verb": (
    "decide arrive forget believe explain receive destroy improve imagine "
    "describe follow borrow prefer suggest avoid become belong deliver enjoy "
    "happen include remember speak vanish"
  ),
  "adjective": (
    "happy angry narrow clever gentle hungry lazy modern nervous polite proud "
    "quiet rapid silent simple strange stupid sudden tiny useful wise wooden "
    "famous honest"
  ),
  "adverb": (
    "quickly slowly often never always carefully suddenly rarely simply badly "
    "gently happily loudly easily nearly hardly seldom sometimes together "
    "perhaps almost already quietly politely"
  ),
}
NUMBER_WORDS = (
  "two three four five six seven eight nine ten eleven twelve thirteen twenty "
  "thirty forty fifty sixty seventy eighty ninety hundred thousand"
)
OTHER_WORDS = (
  "many some several few enough plenty countless various other more green old "
  "empty broken happy strange small large new quiet wooden famous"
)
FRAMES = ("There were", "I have seen", "They wanted", "We counted")


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
  """Texts with one class each.

  Attributes:
    name: What it is about.
    rows: Token ids of every text, BOS included.
    labels: The class of each text, an index into `classes`.
    classes: What they are called.
    groups: Texts with the same number, of one class, are held out together.
    pooled: Whether the mean of all tokens but BOS stands for a text; else its
      last token does.
  """

  name: str
  rows: tuple[tuple[int, ...], ...]
  labels: Int[np.ndarray, " texts"]
  classes: tuple[str, ...]
  groups: Int[np.ndarray, " texts"]
  pooled: bool

  def of(self, index: int) -> Bool[np.ndarray, " texts"]:
    """Which texts are of a class."""
    return self.labels == index

  def split(self, share: float = 0.3, seed: int = 0) -> Split:
    """Texts to fit and texts held out, whole groups of every class.

    Args:
      share: Of the groups of each class that is held out.
      seed: Of the choice.

    Raises:
      TextError: A class has fewer than two groups.
    """
    rng = np.random.default_rng(seed)
    held: set[int] = set()
    for index, name in enumerate(self.classes):
      own = np.unique(self.groups[self.of(index)])
      if len(own) < 2:
        raise TextError(
          "A class needs two groups of texts, to fit and to hold out.",
          received=f"{len(own)} of {name!r} in {self.name}",
          instead="more words, or a larger vocabulary",
        )
      count = min(len(own) - 1, max(1, round(share * len(own))))
      held |= set(rng.permutation(own)[:count].tolist())
    out = np.isin(self.groups, list(held))
    return np.flatnonzero(~out), np.flatnonzero(out)


@dataclasses.dataclass(frozen=True, eq=False)
class Crossed:
  """Texts with two classes each, in all four combinations.

  Attributes:
    intended: The one that matters.
    spurious: The other one, of the same texts.
  """

  intended: Labelled
  spurious: Labelled


def first_letter(
  lm: LanguageModel, *, per_letter: int = 40, least: int = 3, seed: int = 0
) -> Labelled:
  """Single tokens by their first letter, as in Chanin et al. 2024.

  Letters with fewer than eight tokens are left out. Words of the vocabulary's
  beginning are chosen from, which are frequent.

  Args:
    lm: The model.
    per_letter: Tokens of each letter, at most.
    least: Letters of a token, at least.
    seed: Of the choice.

  Raises:
    TextError: Fewer than two letters have enough tokens.
  """
  by_letter: dict[str, list[int]] = {c: [] for c in string.ascii_lowercase}
  for token in range(min(lm.tokenizer.vocab_size, 60_000)):
    text = lm.tokenizer.token_text(token)
    word = text[1:]
    plain = word.isascii() and word.isalpha() and word.islower()
    if text.startswith(" ") and plain and len(word) >= least:
      by_letter[word[0]].append(token)
  rng = np.random.default_rng(seed)
  known = {c: ids for c, ids in by_letter.items() if len(ids) >= 8}
  if len(known) < 2:
    raise TextError(
      "The vocabulary has too few words.",
      received=f"letters with eight words: {', '.join(known) or 'none'}",
      instead="the tokenizer of a real model, or a smaller `least`",
    )
  rows, labels = [], []
  for index, ids in enumerate(known.values()):
    chosen = rng.permutation(ids)[:per_letter]
    rows += [(lm.tokenizer.bos_id, int(token)) for token in chosen]
    labels += [index] * len(chosen)
  numbers = np.arange(len(rows))
  return _labelled("first letter", rows, labels, known, numbers, pooled=False)


def language(lm: LanguageModel) -> Labelled:
  """Sentences of the same content in four languages."""
  found = []
  for index, parts in enumerate(LANGUAGES.values()):
    subjects, actions, times = (part.split("|") for part in parts)
    for s, subject in enumerate(subjects):
      for action, when in itertools.product(actions, times):
        text = f"{subject[0].upper()}{subject[1:]} {action} {when}."
        found.append((text, index, 100 * index + s))
  return _from_texts(lm, "language", found, LANGUAGES, pooled=True)


def sentiment(lm: LanguageModel) -> Labelled:
  """Short judgements with a positive or a negative adjective."""
  return sentiment_by_topic(lm).intended


def sentiment_by_topic(lm: LanguageModel) -> Crossed:
  """The same, of films and of food: sentiment is meant, the topic is not."""
  nouns = [
    (topic, noun)
    for topic, own in enumerate(TOPICS.values())
    for noun in own.split()
  ]
  words = [(0, word) for word in POSITIVE.split()] + [
    (1, word) for word in NEGATIVE.split()
  ]
  every = list(itertools.product(enumerate(nouns), enumerate(words)))
  texts = [
    (f"The {noun} was {word}.", label, w)
    for (_, (_, noun)), (w, (label, word)) in every
  ]
  classes = ("positive", "negative")
  intended = _from_texts(lm, "sentiment", texts, classes, pooled=True)
  spurious = dataclasses.replace(
    intended,
    name="topic",
    labels=np.array([topic for (_, (topic, _)), _ in every]),
    classes=tuple(TOPICS),
    groups=np.array([n for (n, _), _ in every]),
  )
  return Crossed(intended, spurious)


def part_of_speech(lm: LanguageModel) -> Labelled:
  """Words of four kinds, each alone."""
  found = []
  for index, words in enumerate(WORDS.values()):
    found += [(f" {w}", index, 0) for w in words.split()]
  alone = [(text, label, i) for i, (text, label, _) in enumerate(found)]
  return _from_texts(lm, "part of speech", alone, WORDS, pooled=False)


def number(lm: LanguageModel) -> Labelled:
  """Digits, number words and other words at the end of a phrase."""
  digits = [str(n) for n in (*range(2, 20), *range(20, 100, 10), 365, 1000)]
  kinds = {
    "digits": digits,
    "number word": NUMBER_WORDS.split(),
    "other word": OTHER_WORDS.split(),
  }
  found = [
    (f"{frame} {word}", index, 1000 * index + i)
    for index, words in enumerate(kinds.values())
    for i, word in enumerate(words)
    for frame in FRAMES
  ]
  return _from_texts(lm, "number", found, kinds, pooled=False)


SETS = {
  "first letter": first_letter,
  "language": language,
  "sentiment": sentiment,
  "part of speech": part_of_speech,
  "number": number,
}


def concepts(
  lm: LanguageModel, names: Sequence[str] = tuple(SETS)
) -> Iterator[Labelled]:
  """The sets of these names.

  Raises:
    ConfigError: There is none of a name.
  """
  for name in names:
    if name not in SETS:
      raise ConfigError(
        "There is no such set of concepts.",
        received=name,
        instead=f"one of {', '.join(SETS)}",
      )
  for name in names:
    yield SETS[name](lm)


def _from_texts(
  lm: LanguageModel,
  name: str,
  found: Sequence[tuple[str, int, int]],
  classes: Iterable[str],
  *,
  pooled: bool,
) -> Labelled:
  """From (text, label, group)."""
  rows = [tuple(lm.tokenizer.encode(text)) for text, _, _ in found]
  labels = [label for _, label, _ in found]
  groups = [group for _, _, group in found]
  return _labelled(name, rows, labels, classes, groups, pooled=pooled)


def _labelled(
  name: str,
  rows: Sequence[tuple[int, ...]],
  labels: Sequence[int],
  classes: Iterable[str],
  groups: Sequence[int] | np.ndarray,
  *,
  pooled: bool,
) -> Labelled:
  return Labelled(
    name,
    tuple(rows),
    np.asarray(labels),
    tuple(classes),
    np.asarray(groups),
    pooled,
  )
