"""The words of the simulated shop: names, descriptions, profiles and reviews built from its attributes.

Each attribute has its own small list of words, so that a text tells what an item is without quoting its columns:
a tag is never named, only paraphrased, and some words are left out or put in by chance, as in real catalogs.
"""

from __future__ import annotations

import numpy as np
import polars as pl

__all__ = [
    "ACCESSORY", "BRANDS", "CATEGORIES", "DEPARTMENTS", "TAGS", "TAG_WORDS",
    "collection_names", "item_texts", "profile_texts", "review_texts",
]

DEPARTMENTS = ("kitchen", "garden", "desk", "travel", "music", "play")
CATEGORIES = (
    "kettle", "pan", "knife", "apron", "spade", "planter", "lantern", "hose",
    "notebook", "pen", "lamp", "organizer", "backpack", "tent", "bottle", "blanket",
    "guitar", "drum", "stand", "tuner", "puzzle", "kite", "blocks", "robot",
)  # four per department, in the order of DEPARTMENTS
ACCESSORY = np.array([c - c % 4 + (c % 4 + 1) % 4 for c in range(len(CATEGORIES))])  # what goes with a category

BRANDS = (
    "Orvane", "Teskil", "Maribo", "Quendal", "Hollin", "Varsko", "Pellamy", "Dunmere", "Isko", "Brackwell",
    "Lumette", "Fenrow", "Castaly", "Oddvik", "Sorrelby", "Tamsen", "Wexcombe", "Yarrod", "Zinnel", "Kestova",
    "Amberly", "Norrun", "Galvesk", "Petrow", "Ullmar", "Rivenne", "Jossby", "Eldwick", "Corvane", "Miskett",
)

TAGS = ("durable", "light", "quiet", "warm", "compact", "bright", "natural", "elegant", "playful", "precise")
TAG_WORDS = (
    ("sturdy", "hard-wearing", "built to last", "tough", "reinforced", "shockproof"),
    ("featherweight", "easy to lift", "airy", "barely there", "slim-line", "weightless"),
    ("silent", "hushed", "noiseless", "soft-spoken", "muted", "whispering"),
    ("cozy", "snug", "heat-keeping", "padded", "fleecy", "toasty"),
    ("space-saving", "foldable", "pocket-sized", "stackable", "tiny", "collapsible"),
    ("vivid", "glowing", "luminous", "radiant", "gleaming", "high-contrast"),
    ("plant-based", "untreated", "organic", "hand-gathered", "earthy", "undyed"),
    ("refined", "graceful", "polished", "tailored", "understated", "stylish"),
    ("cheerful", "whimsical", "funny", "lively", "quirky", "mischievous"),
    ("accurate", "finely tuned", "exact", "calibrated", "sharp-edged", "millimeter-true"),
)
DEPARTMENT_WORDS = (
    ("for cooks", "for the stove", "for supper", "for bakers", "for the dinner table"),
    ("for flower beds", "for the greenhouse", "for the lawn", "for seedlings", "for the terrace"),
    ("for the office", "for writers", "for students", "for paperwork", "for long reports"),
    ("for hikers", "for the road", "for camps", "for weekends away", "for night trains"),
    ("for rehearsals", "for the stage", "for players", "for bands", "for evening practice"),
    ("for rainy days", "for birthdays", "for the nursery", "for game nights", "for curious hands"),
)
MATERIALS = ("steel", "oak", "linen", "bamboo", "glass", "wool", "copper", "canvas", "cork", "ceramic")
COLORS = ("sand", "moss", "slate", "rust", "ivory", "plum", "teal", "coal", "lemon", "rose")
FILLERS = (
    "Arrives in a plain box.", "Wipe clean with a cloth.", "Two years of guarantee.", "Assembled in small batches.",
    "Spare parts are available.", "A favorite of our staff.", "New in the shop.", "Comes with a short manual.",
)
REVIEW_OPENINGS = (
    ("Sent it back", "A disappointment", "Broke within days", "Would not buy again", "Not what was promised"),
    ("Weaker than hoped", "Below its price", "Had some trouble", "Only just usable", "Expected more"),
    ("Does its job", "Fair enough", "Neither good nor bad", "An average buy", "Fine for now"),
    ("Glad to have it", "Good value", "Works very well", "A solid choice", "Happy so far"),
    ("Love it", "Exceeded all hopes", "Simply perfect", "Best purchase this year", "Could not be better"),
)
REVIEW_CLOSINGS = (
    ("avoid.", "money wasted.", "never again."), ("think twice.", "there are better ones.", "not for me."),
    ("it will do.", "okay.", "no strong feelings."), ("would recommend.", "well made.", "nice."),
    ("buy it!", "thrilled.", "five stars."),
)
SYLLABLES = (
    "al", "ber", "cor", "dan", "el", "fi", "gar", "hel", "in", "jor",
    "ka", "lun", "mor", "nel", "os", "pri", "quo", "ras", "sel", "tor",
)
REGIONS = ("north", "south", "east", "west", "coast", "hills")


def collection_names(count: int) -> list[str]:
    """`count` different invented names: syllables in the place of digits, scattered so that neighbors differ."""
    base = len(SYLLABLES)
    width, size = 3, base**3
    while size < count:
        width, size = width + 1, size * base
    names = []
    for index in range(count):
        code, parts = (index * 4_177 + 1_234) % size, []  # 4,177 is prime to 20: no two indices share a code
        for _ in range(width):
            code, digit = divmod(code, base)
            parts.append(SYLLABLES[digit])
        names.append("".join(parts).capitalize())
    return names


def item_texts(
    rng: np.random.Generator, category: np.ndarray, brand: np.ndarray, tags: np.ndarray,
    collection: np.ndarray, order: np.ndarray,
) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """(titles, texts, material ids, color ids) of I items.

    category, brand, collection, order: int [I]; tags: bool [I, 10]. One tag in eight goes unmentioned, and one
    text in six praises something that is not there.
    """
    names = collection_names(int(collection.max()) + 1)
    count = len(category)
    material, color = rng.integers(len(MATERIALS), size=count), rng.integers(len(COLORS), size=count)
    said = tags & (rng.random(tags.shape) >= 0.125)
    false_praise = rng.random(count) < 1 / 6
    said[np.flatnonzero(false_praise), rng.integers(len(TAGS), size=int(false_praise.sum()))] = True
    word = rng.integers(6, size=tags.shape)
    use, filler = rng.integers(5, size=count), rng.integers(len(FILLERS), size=count)
    titles, texts = [], []
    for i in range(count):
        kind, name, maker = CATEGORIES[category[i]], names[collection[i]], BRANDS[brand[i]]
        praise = [TAG_WORDS[t][word[i, t]] for t in np.flatnonzero(said[i])]
        lead = f"{praise[0]} " if praise else ""
        titles.append(f"{maker} {name} {lead}{kind} {order[i] + 1}")
        rest = f"It is {' and '.join(praise)}. " if praise else ""
        texts.append(
            f"{titles[-1]}. This {COLORS[color[i]]} {kind} of {MATERIALS[material[i]]} "
            f"{DEPARTMENT_WORDS[category[i] // 4][use[i]]}. {rest}Piece {order[i] + 1} of the {name} collection "
            f"by {maker}; goes with the {CATEGORIES[ACCESSORY[category[i]]]}. {FILLERS[filler[i]]}"
        )
    return titles, texts, material, color


def profile_texts(rng: np.random.Generator, favorites: np.ndarray, taste: np.ndarray) -> list[str]:
    """What users say of themselves when they join. favorites: int [U, 2] categories; taste: float [U, 10] per tag."""
    best = np.argsort(-taste, axis=1, kind="stable")[:, :2]
    word = rng.integers(6, size=best.shape)
    use = rng.integers(5, size=len(best))
    return [
        f"Looking for a {CATEGORIES[a]} or a {CATEGORIES[b]}, {TAG_WORDS[s][ws]} and {TAG_WORDS[t][wt]}, "
        f"{DEPARTMENT_WORDS[a // 4][u]}."
        for (a, b), (s, t), (ws, wt), u in zip(
            favorites.tolist(), best.tolist(), word.tolist(), use.tolist(), strict=True)
    ]


def review_texts(rng: np.random.Generator, rating: np.ndarray, category: np.ndarray, tags: np.ndarray) -> pl.Series:
    """Reviews in which a rating is felt and tags are paraphrased. rating: int [R] in 1..5; tags: bool [R, 10]."""
    count = len(rating)
    grade = rating - 1
    openings = pl.Series([text for row in REVIEW_OPENINGS for text in row])
    closings = pl.Series([text for row in REVIEW_CLOSINGS for text in row])
    columns = {
        "opening": openings.gather(grade * 5 + rng.integers(5, size=count)),
        "kind": pl.Series(CATEGORIES).gather(category),
        "closing": closings.gather(grade * 3 + rng.integers(3, size=count)),
    }
    words = pl.Series([word for row in TAG_WORDS for word in row])
    for t in range(len(TAGS)):
        chosen = words.gather(t * 6 + rng.integers(6, size=count))
        columns[f"tag{t}"] = pl.select(
            pl.when(pl.Series(tags[:, t])).then(pl.concat_str(pl.lit(" "), chosen, pl.lit(","))).otherwise(pl.lit(""))
        ).to_series()
    praise = [f"tag{t}" for t in range(len(TAGS))]
    return pl.DataFrame(columns).select(
        pl.concat_str("opening", pl.lit(", this "), "kind", pl.lit(":"), *praise, pl.lit(" "), "closing").alias("text")
    ).to_series()
