import os
import random
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from w2ltune.errors import InputError
from w2ltune.scoring.glm import load_glm
from w2ltune.scoring.text import load_normalizer

HEAD = """;; the words of a test
* name "test.glm"
* desc "a test"
* format = 'NIST1'
* max_nrules = '100'
* copy_no_hit = 'T'
* case_sensitive = 'F'
"""
RULES = """
[gonna] => [going to] / [ ] __ [ ]
[uh] => [%hesitation] / [ ] __ [ ]
[uh huh] => [yes] / [ ] __ [ ]
[aa bb] => [long] / [ ] __ [ ]
[aa] => [short] / [ ] __ [ ]
colour => color
[q] => [r] / [ ] __ [ ]
[r] => [s] / [ ] __ [ ]
[o k] => [okay] / [ ] __ [ ]
;; the end
"""
FILTER = Path("/usr/lib/sctk/bin/rfilter1")


@pytest.fixture
def glm(tmp_path):
    path = tmp_path / "test.glm"
    path.write_text(HEAD + RULES)
    return path


@pytest.mark.parametrize(
    ("text", "mapped"),
    [
        ("i am Gonna go", "i am going to go"),
        ("gonna gonna gonna", "going to going to going to"),
        ("uh huh", "%hesitation huh"),  # the first rule that fits, not the longest
        ("aa bb aa", "long short"),
        ("q r", "r s"),  # once over the text
        ("colours of discolouring", "colors of discoloring"),
        ("o k ok", "okay ok"),
        ("", ""),
        ("größe", "größe"),
    ],
)
def test_rules(glm, text, mapped):
    assert load_glm(glm)(text) == mapped
    assert load_normalizer(glm, ignore_case=False)(text) == mapped


def test_case(tmp_path):
    path = tmp_path / "case.glm"
    path.write_text(HEAD.replace("'F'", "'T'") + '[AA] => [x] / [ ] __ [ ]\n"b" => "c"\n')
    assert load_glm(path)("aa AA ab") == "aa x ac"


needs_filter = pytest.mark.skipif(
    not FILTER.exists(), reason="NIST's filter is not installed (package sctk; .ci/run installs it)"
)


def filtered(path, texts):
    """What NIST's own program makes of each text; None where it refuses the rules."""

    def run(given):
        done = subprocess.run([FILTER, path], input=given.encode(), capture_output=True)
        return None if done.returncode else done.stdout.decode()

    rows = [f" {text} \n" for text in texts]
    found = run("".join(rows))
    if found is None:
        return None
    lines = found.removesuffix("\n").split("\n")
    if len(lines) != len(texts):  # the rules drop line ends too
        lines = list(map(run, rows))
    return [" ".join(line.split()) for line in lines]


@needs_filter
def test_nists_own_filter_gives_the_same(glm):
    choose = random.Random(1)
    words = "gonna uh huh aa bb colour colours q r o k ok yes Uh UH qr so".split()  # noqa: SIM905
    texts = [" ".join(choose.choices(words, k=choose.randint(1, 9))) for _ in range(500)]
    assert filtered(glm, texts) == [*map(load_glm(glm), texts)]


@needs_filter
@pytest.mark.parametrize(
    ("lines", "text", "mapped"),
    [
        # Upper and lower case differ where the file says nothing.
        ("[um] => [uh] / [ ] __ [ ]", "UM um", "UM uh"),
        ("* case_sensitive = 'F'\n[um] => [uh] / [ ] __ [ ]", "UM um", "uh uh"),
        ("* CASE_SENSITIVE 'true'\n[um] => [uh]", "UM um", "UM uh"),
        ("[um] => [uh]\n* case_sensitive : \"no\" ;; behind the rule", "UM um", "uh uh"),
        ("* case_sensitive = 'F'\n[É] => [x]\n[e] => [y]", "é É E", "é x y"),
        # The value of a line is that of all options that it names.
        ("* desc 'case_sensitive rules'\n[um] => [uh]", "UM", "uh"),
        ("* name 'x'\n* max_nrules = '1000\n[um] => [uh]", "UM um", "UM uh"),
        # Comments behind rules.
        ("[um] => [uh] / [ ] __ [ ] ;; a comment / with __ [a] => [b]", "um", "uh"),
        ("um => uh;;comment", "um", "uh"),
        ("  um  =>  uh  \r\n \r\n", "um hum", "uh huh"),
        # What people write without brackets, and the examples of NIST's GLMRules.txt.
        ("JETLINER => JET LINER", "A JETLINER", "A JET LINER"),
        ("Falkner => Faulkner / [William ] __", "William Falkner J Falkner",
         "William Faulkner J Falkner"),
        ("VIDEOTAPE => VIDEO TAPE / [ ] __ [ ]", "VIDEOTAPES VIDEOTAPE", "VIDEOTAPES VIDEO TAPE"),
        ("a b => c d / x y __ z", "x ya bz a b", "x yc dz a b"),
        ('"a " => "b"\n"c" => ""', "a a c", "bb"),
        ("[um] => [] / [ ] _ [ ]", "um yes um", "yes"),
        ("um => / [ ] ___ [ ]", "um yes um", "yes"),
        ("um =>", "hum um", "h"),
        ("a/b => c/d / [ ] __ [ ]", "a/b xa/b", "c/d xa/b"),
        ("[[laugh]] => [] / [ ] __ [ ]", "[laugh] a", "a"),
        ("{laugh} => [{noise}]", "{laugh}", "{noise}"),
        ("[a b] => [x]\n[a] => [y]", "a a b", "y x"),
        # What no rule replaces.
        ("* copy_no_hit = 'F'\n[um] => [uh ]\n[ ] => [-]", "um yes um", "-uh --uh -"),
        ("* copy_no_hit = 'YES'\n[um] => [uh]", "um yes", "uh yes"),
    ],
)  # fmt: skip
def test_as_rfilter1_reads_it(tmp_path, lines, text, mapped):
    path = tmp_path / "test.glm"
    path.write_bytes(f";; names of places\n{lines}".encode())
    assert load_glm(path)(text) == mapped
    assert filtered(path, [text]) == [mapped]


def random_file(choose):
    """Rules and options as people may write them, some of them wrong."""

    def part(letters):
        text = "".join(choose.choices(letters, k=choose.randint(1, 4)))
        bare = text.strip() or "b"
        return choose.choice([f"[{text}]", f"[ {text}]", f'"{text}"', bare, bare, f"[{bare}"])

    def rule():
        letters = f"abABé {choose.choice(['', '', '/', '_', chr(39)])}"
        old, new = part(letters), choose.choice([part(letters), part(letters), "[]", ""])
        context = choose.choice(
            ["", "", " / [ ] __ [ ]", " / [a ] _ b", ' / "b" ___', " / __ [ ]", " /[ ] __ [ ]",
             " / [ ] __[ ]"]
        )  # fmt: skip
        behind = choose.choice(["", "", " ;; c", " ;; [a] => [b] / c", ";;x", " \t"])
        before, after = choose.choice([" ", "  ", ""]), choose.choice([" ", "  "])
        return f"{old}{before}=>{after}{new}{context}{behind}"

    option = choose.choice(["case_sensitive", "COPY_NO_HIT", "format", "name", "desc"])
    value = choose.choice(["T", "F", "yes", "no", "NIST1", "NIST2"])
    lines = [f"* {option} = {choose.choice(['', chr(39)])}{value}'"] * choose.randint(0, 1)
    lines += [rule() for _ in range(choose.choice([1, 2, 6]))]
    return ";; names\n" + "\n".join(lines) + choose.choice(["\n", "", "\r\n", "\n;; [a] => [c]"])


@needs_filter
def test_random_files_as_rfilter1_applies_them(tmp_path):
    choose = random.Random(5)
    path = tmp_path / "test.glm"
    texts = ["".join(choose.choices("abABé ", k=choose.randint(1, 20))) for _ in range(12)]
    texts = [" ".join(text.split()) or "a" for text in texts]
    same = changed = 0
    for _ in range(200):
        path.write_bytes(random_file(choose).encode())
        try:
            apply = load_glm(path)
        except InputError:
            continue
        mapped = [*map(apply, texts)]
        assert filtered(path, texts) == mapped, path.read_text()
        same += 1
        changed += mapped != texts
    assert same > 50 and changed > 25


def test_composed_and_decomposed_letters_are_the_same(tmp_path):
    path = tmp_path / "test.glm"
    path.write_text(";; c\n[cafe\u0301] => [bar]\n", encoding="utf-8")
    assert load_glm(path)("caf\u00e9 cafe\u0301") == "bar bar"


def plain(rules, *, case_sensitive):
    """What the rules mean: an alternation of all of them, which takes long where they are many."""
    pattern = re.compile(
        "|".join(
            (f"((?<={re.escape(left)})" if left else "(")
            + f"{re.escape(old)}(?={re.escape(right)}))"
            for old, _, left, right in rules
        ),
        re.ASCII if case_sensitive else re.ASCII | re.IGNORECASE,
    )

    def apply(text):
        changed = pattern.sub(lambda match: rules[match.lastindex - 1][1], f" {text} ")
        return " ".join(changed.split())

    return apply


def write_rules(path, rules, *, case_sensitive=False):
    lines = [f"[{old}] => [{new}] / [{left}] __ [{right}]\n" for old, new, left, right in rules]
    head = HEAD.replace("'F'", "'T'") if case_sensitive else HEAD
    path.write_text(head + "".join(lines), encoding="utf-8")
    return load_glm(path)


@pytest.mark.parametrize("case_sensitive", [False, True])
@pytest.mark.parametrize("letters", ["ab ", "aAbB ", "aÄäßẞsſSkKiİıIσςΣ "])
def test_the_index_gives_what_plain_rules_give(tmp_path, letters, case_sensitive):
    choose = random.Random(f"{letters}{case_sensitive}")

    def some(least, most):
        return "".join(choose.choices(letters, k=choose.randint(least, most)))

    changed = 0
    for _ in range(30):
        contexts = choose.choice([[" "], ["", " "], ["", " ", "a", "b ", "A a"]])
        rules = [
            (some(1, 4), some(0, 3).upper(), choose.choice(contexts), choose.choice(contexts))
            for _ in range(choose.choice([1, 5, 40]))
        ]
        indexed = write_rules(tmp_path / "x.glm", rules, case_sensitive=case_sensitive)
        reference = plain(rules, case_sensitive=case_sensitive)
        for text in (some(0, 30) for _ in range(40)):
            assert indexed(text) == reference(text), (rules, text)
            changed += indexed(text) != " ".join(text.split())
    assert changed > 100


def test_thousands_of_rules_cost_no_more_than_a_few(tmp_path):
    choose = random.Random(2)
    words = ["".join(choose.choices("etaoinshr", k=choose.randint(2, 9))) for _ in range(9000)]
    rules = [(f"{word} {choose.choice(words)}", "x", " ", " ") for word in words]
    texts = [" ".join(choose.choices(words, k=20)) for _ in range(100)]

    def seconds(number):
        """Processor time, of the quickest of three."""
        apply = write_rules(tmp_path / "x.glm", rules[:number])
        found = []
        for _ in range(3):
            begin = time.process_time()
            for text in texts:
                apply(text)
            found.append(time.process_time() - begin)
        return min(found)

    # Tried one after the other, 300 times the rules took hundreds of times as long.
    assert seconds(9000) < 20 * seconds(30)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[wanna] => {[want to] / [wanna]} / [ ] __ [ ]", "test.glm:8: the rule '[wanna] =>"),
        ("gonna = going to", "test.glm:8: 'gonna = going to' is no rule; expected"),
        ("=> [x]", "test.glm:8: '=> [x]' is no rule"),
        ("[] => [x]", "test.glm:8: '[] => [x]' is no rule: it replaces nothing"),
        ("  ;; a", "test.glm:8: ';;' is no rule"),
        ("# a", "test.glm:8: '# a' is no rule; expected [old] => [new] / [ ] __ [ ] (a comment"),
        ("[a] => [km/h]", "test.glm:8: '[a] => [km/h]': the last '/' begins the context"),
        ("[a] => [b] / [ ]", "test.glm:8: '[a] => [b] / [ ]': the last '/' begins the context"),
        ("[a/b] => c", "test.glm:8: '[a/b] => c': the last '/' begins the context"),
        ("[a] =>[b]", "test.glm:8: '[a] =>[b]': there must be a blank behind '=>'"),
        ("[a] => [b] / [ ] __[ ]", "there must be a blank behind '=>', '/' and '__'"),
        ("[a] => [b] / [x_y] __ [ ]", "there must be a blank behind '=>', '/' and '__'"),
        ("[a => b", "test.glm:8: '[a => b': '[a' has a bracket on one side only"),
        ("* case_sensitive = F", "test.glm:8: '* case_sensitive = F' has no value in quotes"),
        ("* format = 'NIST2'", "test.glm:8: \"* format = 'NIST2'\": the format must be 'NIST1'"),
        ("* case_senstive = 'F'", "names no option of rfilter1; did you mean 'CASE_SENSITIVE'?"),
        (f"{'a' * 130} => b", "test.glm:8: 135 bytes, of which rfilter1 takes those behind 131"),
        (';; INPUT_DEPENDENT_APPLICATION = "hyp"', "test.glm:8: the rules behind INPUT_DEPENDENT"),
    ],
)
def test_what_is_refused(tmp_path, line, message):
    path = tmp_path / "test.glm"
    path.write_text(HEAD + line + "\n")
    with pytest.raises(InputError) as caught:
        load_glm(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "first",
    [
        *("", "\n", "* name 'x'\n", "[the] => [THE] / [ ] __ [ ]\n", '"a" => "b"\n'),
        *("colour => color\n", " colour => color\n", "1 => one\n", "names of places\n"),
        *("%a => %b\n", "[x]\n"),
    ],
)
def test_a_file_without_its_first_comment(tmp_path, first):
    path = tmp_path / "test.glm"
    path.write_text(first + ("[a] => [b]\n" if first else ""))
    with pytest.raises(InputError, match=r"test\.glm:1: its first line must be a comment"):
        load_glm(path)


@pytest.mark.parametrize("first", [";; [a] => [x]\n", "# names\n", "% names\n", "# [a] => [x]\n"])
def test_the_first_comment(tmp_path, first):
    path = tmp_path / "test.glm"
    path.write_text(f"{first}[a] => [b] / [ ] __ [ ]\n{first}")
    assert load_glm(path)("a") == "b"


def test_a_byte_order_mark(tmp_path):
    path = tmp_path / "test.GLM"
    path.write_text("\ufeff;; c\n[a] => [b]\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"test\.GLM:1: .*byte order mark"):
        load_normalizer(path, ignore_case=False)


def test_a_file_without_rules(tmp_path):
    path = tmp_path / "test.glm"
    path.write_text(HEAD + ";; [a] => [b]\n")
    with pytest.raises(InputError, match=r"test\.glm: no rule in it; lines that begin as"):
        load_glm(path)


def test_sctk_is_there_where_it_must_be():
    if os.environ.get("W2LTUNE_REQUIRE_SLURM") == "1":
        assert FILTER.exists()
        assert shutil.which("sctk")
