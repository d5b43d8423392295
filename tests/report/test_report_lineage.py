"""What was made from what: from journals, whole or damaged, and from checkpoints' lineages."""

from __future__ import annotations

import json

from sanactl.records.journal import Journal, Run
from sanactl.report.lineage import MAX_BRANCHES, journal_tree, lineage_tree, merge_trees, outline


def ran(journal, command, inputs, outputs, kind="checkpoint", make=True):
    """A run in the journal; names as `name` or `name@digest`."""

    def entry(text):
        name, _, digest = text.partition("@")
        return {"path": name, **({"digest": digest} if digest else {})}

    made = [{**entry(o), "kind": kind} for o in outputs]
    for output in made if make else ():
        (journal.folder / output["path"]).touch()
    journal.append(Run(command, [command], "0.1.0", inputs=[entry(i) for i in inputs], outputs=made), 0.1)


def drawn(roots):
    return [branch + node.name for branch, node in outline(roots)]


def nodes(roots):
    return {node.name: node for _, node in outline(roots)}


def test_outputs_stand_below_the_checkpoint_that_they_came_from(tmp_path):
    journal = Journal(tmp_path)
    (tmp_path / "base.st").touch()
    ran(journal, "grow", ["base.st@a"], ["base-d60.st@b"])
    ran(journal, "importance", ["base-d60.st@b", "calib.txt"], ["base-d60.importance.jsonl"], kind="block")
    ran(journal, "prune", ["base-d60.importance.jsonl", "base-d60.st@b"], ["base-d60-d30.st@c"], make=False)
    ran(journal, "judge", ["stdin"], ["judged.jsonl"], kind="image")
    roots = journal_tree(journal)
    assert drawn(roots) == [
        "base.st",
        "└─ base-d60.st",
        "   ├─ base-d60.importance.jsonl",
        "   └─ base-d60-d30.st",
        "judged.jsonl",
    ]
    found = nodes(roots)
    assert found["base-d60-d30.st"].also_from == ["base-d60.importance.jsonl"]
    assert found["base-d60.importance.jsonl"].also_from == ["calib.txt"]
    assert found["base-d60-d30.st"].run["command"] == "prune"
    assert found["base.st"].run is None
    assert [n for n, node in found.items() if node.exists is False] == ["base-d60-d30.st"]
    assert not any(node.outdated for node in found.values())


def test_what_was_made_anew_marks_what_came_from_the_old(tmp_path):
    journal = Journal(tmp_path)
    ran(journal, "grow", ["base.st@a"], ["grown.st@b"])
    ran(journal, "prune", ["grown.st@b"], ["pruned.st@c"])
    ran(journal, "grow", ["base.st@a"], ["grown.st@b2"])
    ran(journal, "finetune", ["grown.st@b2"], ["tuned.st@d"])
    found = nodes(journal_tree(journal))
    assert found["pruned.st"].outdated
    assert not found["tuned.st"].outdated
    assert not found["grown.st"].outdated
    assert found["base.st"].exists is False


def test_circles_are_cut(tmp_path):
    journal = Journal(tmp_path)
    ran(journal, "convert", ["a.st@1"], ["b.st@2"])
    ran(journal, "convert", ["b.st@2"], ["a.st@3"])
    ran(journal, "finetune", ["a.st@3"], ["a.st@4"])
    assert sorted(n for n in nodes(journal_tree(journal))) == ["a.st", "b.st"]


def test_damaged_journals_are_read_as_far_as_they_go(tmp_path):
    journal = Journal(tmp_path)
    assert journal_tree(journal) == []
    ran(journal, "grow", ["base.st@a"], ["grown.st@b"])
    with journal.path.open("a") as stream:
        odd = r'[3, {"path": 4}, {"path": "x\u0000y"}, {"path": "odd.st", "kind": 5}]'
        inputs = '[null, {"path": "grown.st", "digest": []}]'
        stream.write(f'{{"outputs": {odd}, "inputs": 6}}\n')
        stream.write(f'{{"outputs": [{{"path": "n.st"}}], "inputs": {inputs}, "time": 3}}\n{{"ou')
    ran(journal, "prune", ["grown.st@b"], ["small.st@c"])
    assert drawn(journal_tree(journal)) == ["base.st", "└─ grown.st", "   └─ small.st"]


def write_chain(journal, length):
    """A journal of runs that each work on the last one's output."""
    journal.path.parent.mkdir(exist_ok=True)
    with journal.path.open("w") as stream:
        for number in range(length):
            inputs = [{"path": f"{number}.st", "digest": f"d{number}"}]
            outputs = [{"path": f"{number + 1}.st", "kind": "checkpoint", "digest": f"d{number + 1}"}]
            entry = {"time": f"{number:06d}", "command": "grow", "inputs": inputs, "outputs": outputs}
            stream.write(json.dumps(entry) + "\n")


def test_long_histories_take_time_and_space_by_their_length(tmp_path):
    journal = Journal(tmp_path)
    for length in (5000, 20_000):
        write_chain(journal, length)
        lines = outline(journal_tree(journal))
        assert [node.name for _, node in lines] == [f"{i}.st" for i in range(length + 1)]
        assert max(len(branch) for branch, _ in lines) <= MAX_BRANCHES + 10
    assert lines[0][0] == ""
    assert lines[16][0] == f"{'   ' * 15}└─ "
    assert lines[17][0] == f"[17] {'   ' * 15}└─ "
    assert lines[-1][0] == f"[20000] {'   ' * 15}└─ "


def test_files_that_are_written_over_in_turn(tmp_path):
    """Two files made of each other again and again, and a chain that hangs on them."""
    journal = Journal(tmp_path)
    for number in range(50):
        ran(journal, "convert", ["a.st"], ["b.st"])
        ran(journal, "convert", ["b.st"], ["a.st"])
        ran(journal, "grow", ["a.st"], [f"{number}.st"])
    lines = drawn(journal_tree(journal))
    assert lines[0] == "a.st"
    assert len(lines) == 52
    assert sorted(line[3:] for line in lines[1:]) == sorted(["b.st", *(f"{i}.st" for i in range(50))])


def step(command, parent, digest, *others):
    parents = [{"name": parent, "digest": digest}] + [{"name": o, "digest": o} for o in others]
    return {
        "command": command,
        "arguments": {},
        "version": "0.1.0",
        "seed": 0,
        "parents": parents,
        "blocks": 6,
    }


def test_a_checkpoints_lineage_is_a_chain_from_its_first_parent():
    lineage = [
        step("grow", "base", "a"),
        step("prune", "base-d60", "b"),
        step("finetune", "small", "c", "teacher"),
    ]
    roots = lineage_tree(lineage, "tuned.st", "d")
    assert drawn(roots) == ["base", "└─ base-d60", "   └─ small", "      └─ tuned.st"]
    found = nodes(roots)
    assert found["tuned.st"].also_from == ["teacher"]
    assert found["tuned.st"].digest == "d"
    assert found["small"].run["command"] == "prune"
    assert drawn(lineage_tree([], "base.st")) == ["base.st"]
    assert drawn(lineage_tree([{"command": "init", "parents": 3}], "new.st")) == ["new.st"]


def test_lineages_with_the_same_checkpoints_become_one_tree():
    grown = lineage_tree([step("grow", "base", "a")], "base-d60.st", "b")
    pruned = lineage_tree([step("grow", "base", "a"), step("prune", "base-d60", "b")], "small.st", "c")
    tuned = lineage_tree([step("grow", "base", "a"), step("finetune", "base-d60", "b")], "tuned.st", "d")
    assert drawn(merge_trees([*pruned, *grown, *tuned, *lineage_tree([], "base.st", "a")])) == [
        "base.st",
        "└─ base-d60.st",
        "   ├─ small.st",
        "   └─ tuned.st",
    ]
