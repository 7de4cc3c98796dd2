from __future__ import annotations

import gzip
import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrec.data import detect_layout, prepare, read_layout
from distilrec.data.layouts import layout_files
from distilrec.errors import DataError


def histories(split):
    b, data = split.bounds, split.dataset
    return {
        data.user_keys[u]: [data.item_keys[i] for i in split.items[b[u, 0] : b[u, 3]]] for u in range(split.n_users)
    }


def write(folder, files):
    for name, text in files.items():
        data = text if isinstance(text, bytes) else text.encode()
        (folder / name).write_bytes(data)


def test_movielens_100k(tmp_path):
    flags = "|".join(["0"] * 5 + ["1"] + ["0"] * 12 + ["1"])
    write(
        tmp_path,
        {
            "u.data": "196\t242\t3\t881250949\n196\t10\t5\t881250950\n196\t9\t1\t881250948\nbroken\n",
            "u.item": f"242|Kolya (1996)|24-Jan-1997||http://x|{flags}\n9|Café (1997)|||u|{flags}\n".encode("latin-1"),
            "u.user": "196|49|M|writer|55105\n",
        },
    )
    assert detect_layout(tmp_path) == "movielens-100k"
    split = prepare(tmp_path)
    assert histories(split) == {"196": ["9", "242", "10"]}
    assert split.weights.tolist() == [1, 3, 5]
    assert split.dataset.item_texts() == ["Café (1997)", None, "Kolya (1996)"]
    assert split.dataset.items.column("genres").to_pylist() == ["Comedy|Western", None, "Comedy|Western"]
    assert split.dataset.users.column("occupation").to_pylist() == ["writer"]
    assert split.dataset.quarantine.select(["line", "reason"]).to_pylist() == [
        {"line": 4, "reason": "1 cells, expected 4"}
    ]


def test_movielens_1m(tmp_path):
    write(
        tmp_path,
        {
            "ratings.dat": "1::1193::5::978300760\n1::661::3::978302109\n",
            "users.dat": "1::F::1::10::48067\n",
            "movies.dat": "661::James: the Peach (1996)::Animation|Musical\n1193::Misérables\x85, Les::Drama\n".encode(
                "latin-1"
            ),
        },
    )
    assert detect_layout(tmp_path) == "movielens-1m"
    split = prepare(tmp_path)
    assert histories(split) == {"1": ["1193", "661"]}
    assert split.dataset.item_texts() == ["James: the Peach (1996)", "Misérables\x85, Les"]


def test_movielens_latest(tmp_path):
    write(
        tmp_path,
        {
            "ratings.csv": "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,4,1112484676\n",
            "movies.csv": 'movieId,title,genres\n2,"Monsieur, Madame (1995)",Adventure\n29,City,Sci-Fi\n',
        },
    )
    assert detect_layout(tmp_path) == "movielens-latest"
    split = prepare(tmp_path)
    assert histories(split) == {"1": ["29", "2"]}
    assert split.dataset.item_texts() == ["Monsieur, Madame (1995)", "City"]


REVIEWS = {
    2014: [
        {"reviewerID": "A", "asin": "P1", "overall": 5.0, "unixReviewTime": 1252800000, "helpful": [0, 0]},
        {"reviewerID": "A", "asin": "P2", "overall": 2.0, "unixReviewTime": 1252700000, "helpful": [0, 0]},
    ],
    2018: [
        {
            "overall": 5.0,
            "verified": True,
            "reviewerID": "A",
            "asin": "P1",
            "style": {"Size:": "M"},
            "unixReviewTime": 1252800000,
        },
        {"overall": 2.0, "verified": False, "reviewerID": "A", "asin": "P2", "vote": "3", "unixReviewTime": 1252700000},
    ],
    2023: [
        {"rating": 5.0, "title": "ok", "asin": "X1", "parent_asin": "P1", "user_id": "A", "timestamp": 1252800000123},
        {"rating": 2.0, "title": "no", "asin": "X2", "parent_asin": "P2", "user_id": "A", "timestamp": 1252700000456},
    ],
}


@pytest.mark.parametrize("year", REVIEWS)
@pytest.mark.parametrize("packed", [False, True])
def test_amazon(tmp_path, year, packed):
    suffix, pack = (".json.gz", gzip.compress) if packed else (".jsonl", bytes)
    key = "parent_asin" if year == 2023 else "asin"
    meta = [
        {key: "P1", "title": "Lamp", "description": ["warm", "light"] if year != 2014 else "warm light"},
        {key: "P2", "description": []},
        {key: "P9", "title": "unsold"},
    ]
    # the metadata of 2014 are Python dictionaries
    lines = "".join((repr(m) if year == 2014 else json.dumps(m)) + "\n" for m in meta)
    write(
        tmp_path,
        {
            f"reviews_Home_5{suffix}": pack("".join(json.dumps(r) + "\n" for r in REVIEWS[year]).encode()),
            f"meta_Home{suffix}": pack(lines.encode()),
        },
    )
    for path in (tmp_path, tmp_path / f"reviews_Home_5{suffix}"):
        assert detect_layout(path) == "amazon"
        split = prepare(path, text=("title", "description"))
        assert histories(split) == {"A": ["P2", "P1"]}
        assert split.timestamps.tolist() == [1252700000, 1252800000]
        assert split.weights.tolist() == [2, 5]
        assert split.dataset.item_texts() == ["Lamp warm light", None]


def test_sequences(tmp_path):
    write(tmp_path, {"seq.txt": "7 3 1 2\n\n8 5\n9\n"})
    assert detect_layout(tmp_path / "seq.txt") == "sequences"
    split = prepare(tmp_path / "seq.txt")
    assert histories(split) == {"7": ["3", "1", "2"], "8": ["5"]}
    assert not split.dataset.timed
    assert split.dataset.quarantine.column("line").to_pylist() == [4]


@given(
    st.dictionaries(st.integers(0, 99), st.lists(st.integers(0, 50), min_size=1, max_size=9), min_size=1, max_size=9)
)
def test_sequences_round_trip(tmp_path_factory, sequences):
    path = tmp_path_factory.mktemp("seq") / "s.txt"
    path.write_text("".join(f"{user} {' '.join(map(str, items))}\n" for user, items in sequences.items()))
    assert histories(prepare(path)) == {str(user): list(map(str, items)) for user, items in sequences.items()}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_shared(tmp_path, suffix):
    for name, frame in {
        "interactions": {"user_id": [1, 1], "item_id": [2, 3], "seq_pos": [1, 0]},
        "items": {"item_id": [2], "title": ["two"]},
    }.items():
        table = pl.DataFrame(frame)
        {".parquet": table.write_parquet, ".csv": table.write_csv, ".jsonl": table.write_ndjson}[suffix](
            tmp_path / f"{name}{suffix}"
        )
    assert detect_layout(tmp_path) == "shared"
    split = prepare(tmp_path)
    assert histories(split) == {"1": ["3", "2"]}
    assert split.dataset.item_texts() == ["two", None]
    assert split.dataset.name == tmp_path.name


def test_unknown_layouts(tmp_path):
    write(tmp_path, {"notes.md": "x"})
    with pytest.raises(DataError, match=r"no known layout; it holds notes.md"):
        detect_layout(tmp_path)
    with pytest.raises(DataError, match="there is no"):
        read_layout(tmp_path / "nowhere")
    with pytest.raises(DataError, match="unknown layout 'movielens', did you mean 'movielens"):
        read_layout(tmp_path, "movielens")
    with pytest.raises(DataError, match=r"no file .*ratings.dat"):
        read_layout(tmp_path, "movielens-1m")
    with pytest.raises(DataError, match="0 Amazon review files"):
        read_layout(tmp_path, "amazon")


def test_bytes_of_another_encoding_never_become_other_signs(tmp_path):
    """ml-1m is latin-1 by publication, ml-10m UTF-8; sequences are UTF-8, and a line that is not is set aside."""
    ratings = {"ratings.dat": "1::1::5::978300760\n"}
    for encoding in ("latin-1", "utf-8"):
        write(tmp_path, {**ratings, "movies.dat": "1::Misérables, Les::Drama\n".encode(encoding)})
        assert read_layout(tmp_path).items["title"].to_list() == ["Misérables, Les"]
    write(tmp_path, {"s.txt": b"u a b\nv caf\xe9 c\nw caf\xc3\xa9\n"})
    split = prepare(tmp_path / "s.txt")
    assert histories(split) == {"u": ["a", "b"], "w": ["café"]}
    assert split.dataset.quarantine.select(["line", "reason", "content"]).to_pylist() == [
        {"line": 2, "reason": "not utf-8: byte 0xe9 in place 6", "content": "v caf\\xe9 c"}
    ]


def test_bad_lines_of_amazon_metadata_are_set_aside_too(tmp_path):
    reviews = "".join(json.dumps(r) + "\n" for r in REVIEWS[2018])
    write(tmp_path, {"Home.jsonl": reviews, "meta_Home.jsonl": b'{"asin": "P1", "title": "caf\xe9"}\n{"asin": "P2"}\n'})
    split = prepare(tmp_path, text=())
    (bad,) = split.dataset.quarantine.to_pylist()
    assert (bad["file"], bad["line"]) == (str(tmp_path / "meta_Home.jsonl"), 1)
    assert bad["reason"].startswith("not utf-8")


def test_the_files_of_a_layout(tmp_path):
    """What a change is looked for in: all that is read, and nothing that only lies there."""
    def files(path, layout=None):
        return [file.relative_to(tmp_path).as_posix() for file in layout_files(path, layout)]

    for name, held in {
        "shared": ["interactions.csv", "items.parquet"],
        "movielens-100k": ["u.data.gz", "u.item"],
        "movielens-1m": ["ratings.dat", "movies.dat", "users.dat"],
        "movielens-latest": ["ratings.csv", "movies.csv"],
    }.items():
        folder = tmp_path / name
        (folder / "runs").mkdir(parents=True)
        write(folder, dict.fromkeys([*held, "README", "runs/report.json"], "x"))
        assert detect_layout(folder) == name
        assert files(folder) == [f"{name}/{file}" for file in held]
    folder = tmp_path / "amazon"
    folder.mkdir()
    reviews = "".join(json.dumps(r) + "\n" for r in REVIEWS[2014])
    write(folder, {"reviews_Home_5.json": reviews, "meta_Home.json": "{}", "meta_Toys.json": "{}"})
    expected = ["amazon/reviews_Home_5.json", "amazon/meta_Home.json"]
    assert files(folder) == files(folder / "reviews_Home_5.json") == expected
    assert files(folder / "meta_Toys.json") == ["amazon/meta_Toys.json"]
    with pytest.raises(DataError, match="there is no"):
        layout_files(tmp_path / "nowhere")
