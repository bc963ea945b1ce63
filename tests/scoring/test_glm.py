import os
import random
import shutil
import subprocess
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


def test_nists_own_filter_gives_the_same(glm):
    if not FILTER.exists():
        pytest.skip("NIST's filter is not installed (package sctk; .ci/run installs it)")
    choose = random.Random(1)
    words = "gonna uh huh aa bb colour colours q r o k ok yes Uh UH qr so".split()  # noqa: SIM905
    texts = [" ".join(choose.choices(words, k=choose.randint(1, 9))) for _ in range(500)]
    given = "".join(f" {text} \n" for text in texts)
    done = subprocess.run([FILTER, glm], input=given, capture_output=True, text=True, check=True)
    apply = load_glm(glm)
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [*map(apply, texts)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[wanna] => {[want to] / [wanna]} / [ ] __ [ ]", "test.glm:8: the rule '[wanna] =>"),
        ("gonna = going to", "test.glm:8: 'gonna = going to' is no rule; expected"),
        ("=> [x]", "test.glm:8: '=> [x]' is no rule"),
    ],
)
def test_what_is_refused(tmp_path, line, message):
    path = tmp_path / "test.glm"
    path.write_text(HEAD + line + "\n")
    with pytest.raises(InputError) as caught:
        load_glm(path)
    assert message in str(caught.value)


def test_a_file_without_its_first_comment(tmp_path):
    path = tmp_path / "test.glm"
    path.write_text("* name 'x'\n")
    with pytest.raises(InputError, match="its first line must be a comment"):
        load_glm(path)


def test_sctk_is_there_where_it_must_be():
    if os.environ.get("W2LTUNE_REQUIRE_SLURM") == "1":
        assert FILTER.exists()
        assert shutil.which("sctk")
