"""`report`: which build it finds, where it puts the page, and what it says of a real build."""

import json
import re

import pytest

from gristmill.errors import InputError
from gristmill.storage.local import LocalStore
from gristmill.storage.store import expand, open_store
from jobs.report.report import report, write
from pipeline.builds.locate import locate_run
from pipeline.engines.drive import Options, drive
from pipeline.engines.local import LocalEngine
from pipeline.planning.plan import make_plan
from stages.sink.documents import Documents
from tests.jobs.reading import Reader
from tests.s3_servers import BUCKET, moto, use
from tests.toy import Lines, Short, Unique, Upper

# Where builds are found and pages are put


def record_of(build, name):
    """Return the least that the record of a run says."""
    lists = {"inputs": [], "stages": [], "steps": []}
    return json.dumps({"build": build, "manifest": f"builds/{build}/manifest.json", "name": name, "run": {}, **lists}).encode()


@pytest.fixture
def output(tmp_path):
    store = LocalStore(str(tmp_path / "out"))
    for stamp, build in (
        ("20250101T000000000000Z", "aaaa"),
        ("20250102T000000000000Z", "bbbb"),
        ("20250103T000000000000Z", "aaaa"),
    ):
        store.put_new(f"runs/{stamp}-{build}.json", record_of(build, stamp))
    return store


@pytest.mark.parametrize(
    ("what", "stamp"),
    [
        ("", "20250103"),
        ("/", "20250103"),
        ("/builds/bbbb", "20250102"),
        ("/builds/aaaa/", "20250103"),
        ("/runs/20250101T000000000000Z-aaaa.json", "20250101"),
    ],
)
def test_a_run_is_found_by_its_output_its_build_or_its_record(output, what, stamp):
    found = locate_run(output.root + what)
    assert found.record.name.startswith(stamp) and found.output == output.root


@pytest.mark.parametrize("what", ["/builds/cccc", "/runs/none.json", "/nowhere"])
def test_what_is_no_build_is_said_with_what_to_give(output, what):
    with pytest.raises(InputError, match=r"no finished build there .*Give the output folder"):
        locate_run(output.root + what)


def test_output_in_the_working_folder(output, monkeypatch):
    monkeypatch.chdir(output.root)
    for path in ("builds/bbbb", "builds/bbbb/manifest.json", "runs/20250102T000000000000Z-bbbb.json", "."):
        assert locate_run(path).output == "."


def test_a_new_page_replaces_the_one_before(output):
    first = write(output, "aaaa", "one")
    assert write(output, "aaaa", "two \ud800") == first == f"{output.root}/builds/aaaa/report.html"
    assert output.read("builds/aaaa/report.html") == b"two ?" and output.list("builds/aaaa") == ["report.html"]


def test_on_a_remote_store_another_page_of_the_build_gets_its_own_name(monkeypatch):
    with moto() as port:
        use(monkeypatch, port)
        store = open_store(f"s3://{BUCKET}/out")
        store.put_new("runs/20250101T000000000000Z-aaaa.json", record_of("aaaa", "on S3"))
        assert locate_run(f"s3://{BUCKET}/out/builds/aaaa").record.name == "on S3"
        first = write(store, "aaaa", "one")
        assert first == write(store, "aaaa", "one") == f"s3://{BUCKET}/out/builds/aaaa/report.html"
        second = write(store, "aaaa", "two")
        assert re.fullmatch(r"s3://.*/out/builds/aaaa/report-[0-9a-f]{8}\.html", second)
        assert store.read("builds/aaaa/report.html") == b"one" and len(store.list("builds/aaaa")) == 2


# A real build, from its lines to the page


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    place = tmp_path_factory.mktemp("built")
    for shard, lines in enumerate((["apple", "<b>", "boom", "apple pie"], ["apple", "pear", "& c", "plum"])):
        (place / f"{shard}.txt").write_text("\n".join(lines))
    paths = f"{place}/*.txt"
    stages = [
        ("lines", Lines(paths=paths)),
        ("upper", Upper()),
        ("short", Short()),
        ("unique", Unique()),
        ("documents", Documents()),
    ]
    record = {"on": "local", "workers": None, "version": "0.1.0"}
    outcome = drive(
        make_plan("toy", stages, expand(paths), 2), lambda: LocalEngine(0), Options(str(place / "out"), record=record)
    )
    assert outcome.build is not None, outcome.failures
    return place / "out", outcome.build


def test_a_real_build_is_told_to_people(built, capsys):
    output, build = built
    assert report(str(output)) == 0
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == f"report: {output}/builds/{build}/report.html\n"
    read = Reader((output / "builds" / build / "report.html").read_text())
    assert "8 in = 4 kept + 3 dropped + 1 quarantined" in read.text and ("div", "alert") not in read.attributes("role")
    assert read.figures["flow"] == [8, 8, 0, 0, 8, 7, 0, 1, 1, 7, 5, 2, 0, 2, 5, 4, 1, 0, 1, 4, 4, 0, 0]
    assert "cannot take 'boom'" in read.text and "http://x.example/0.txt/2" in read.text and "<B>" in read.text
    assert "upper.size" in read.text and "unique.copies" in read.text


def test_a_real_build_is_told_to_machines(built, capsys):
    output, build = built
    assert report(f"{output}/builds/{build}", as_json=True) == 0
    ledger = json.loads(capsys.readouterr().out)
    assert ledger["build"] == build
    for each in ledger["stages"]:
        assert each["in"] == each["kept"] + sum(each["dropped"].values()) + sum(each["quarantined"].values())
    assert {each["stage"]: each["dropped"] for each in ledger["stages"]}["short"] == {"too_short": 2}
    assert [(each["documents"], each["sha256"] != "") for each in ledger["shards"]] == [(2, True), (2, True)]
