import re
from pathlib import Path

import pytest

from w2ltune.cluster.site import Site, parse_site, read_site, unused_variables
from w2ltune.errors import InputError

EXAMPLE = Path(__file__).parents[2] / "slurm" / "site.toml.example"


@pytest.fixture
def site_file(tmp_path):
    def write(text, name="site.toml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_defaults():
    assert read_site({}) == Site()
    assert read_site({"HOME": "/nowhere", "W2LTUNE_SITE": ""}) == Site()


def test_the_users_own_place(site_file, tmp_path):
    path = site_file("gpus_per_node = 4", ".config/w2ltune/site.toml")
    assert read_site({"HOME": str(tmp_path)}) == Site(gpus_per_node=4, file=path)


def test_everything(site_file):
    path = site_file(
        """
        gpus_per_node = 4
        cpus_per_gpu = 10
        cpus_per_node = 32
        gpu_option = "gpus-per-node"
        gres_name = "gpu:volta"
        gpu16_constraint = "volta16gb"
        partition = "learnfair"
        account = "speech"
        qos = "long"
        reservation = "deadline"
        constraint = "ib"
        hours = 72
        notice_seconds = 200
        modules = ["cuda/12.2", "open mpi"]
        setup = "setup.sh"
        container = ["apptainer", "exec", "a b.sif"]
        python = "python3"
        root = "checkpoints"
        scratch = "/local/$USER"
        interface = "ib0"
        sbatch = ["--exclusive"]
        """
    )
    (path.parent / "setup.sh").touch()
    site = read_site({"W2LTUNE_SITE": str(path), "SBATCH_ACCOUNT": "other"})
    assert site == Site(
        gpus_per_node=4,
        cpus_per_gpu=10,
        cpus_per_node=32,
        gpu_option="gpus-per-node",
        gres_name="gpu:volta",
        gpu16_constraint="volta16gb",
        partition="learnfair",
        account="speech",
        qos="long",
        reservation="deadline",
        constraint="ib",
        hours=72,
        notice_seconds=200,
        modules=("cuda/12.2", "open mpi"),
        setup=str(path.parent / "setup.sh"),
        container=("apptainer", "exec", "a b.sif"),
        python="python3",
        root=str(path.parent / "checkpoints"),
        scratch="/local/$USER",
        interface="ib0",
        sbatch=("--exclusive",),
        file=path,
    )


def test_the_users_own_defaults_for_sbatch():
    own = {"SBATCH_ACCOUNT": "speech", "SBATCH_QOS": "long", "SBATCH_RESERVATION": "r"}
    assert read_site(own) == Site(account="speech", qos="long", reservation="r")
    more = {"SBATCH_PARTITION": "low", "SLURM_CLUSTERS": "big", "SBATCH_TIMELIMIT": "5"}
    assert read_site(more) == Site(partition="low", clusters="big")
    assert read_site({**more, "SBATCH_CLUSTERS": "small"}).clusters == "small"
    assert unused_variables(own | more) == ["SBATCH_TIMELIMIT"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\ngpu_per_node = 4", ":2: unknown key 'gpu_per_node'; did you mean 'gpus_per_node'?"),
        ("'partitoin' = 'x'", ":1: unknown key 'partitoin'; did you mean 'partition'?"),
        ("\n\n[slurm]\nhours = 3", ":3: unknown key 'slurm' (known: gpus_per_node, "),
        ("file = 'x'", ":1: unknown key 'file'"),
        (
            "hours = 3\ngpus_per_node = '4'",
            ":2: gpus_per_node = '4': must be a whole number from 1",
        ),
        ("gpus_per_node = 0", ":1: gpus_per_node = 0: must be a whole number from 1 to 1024"),
        ("gpus_per_node = 1.5", ":1: gpus_per_node = 1.5: must be a whole number"),
        ("cpus_per_gpu = true", ":1: cpus_per_gpu = True: must be a whole number"),
        ("hours = -1", ":1: hours = -1: must be a number from 0.0167 to 8760"),
        ("hours = nan", ":1: hours = nan: must be a number"),
        ("account = 3", ":1: account = 3: must be a text of one line"),
        ('account = "a\\nb"', ":1: account = 'a\\nb': must be a text of one line"),
        ("modules = 'cuda'", ":1: modules = 'cuda': must be a list of texts"),
        ("modules = ['a', 3]", ":1: modules = ['a', 3]: must be a list of texts"),
        ("gpu_option = 'gpus'", ":1: gpu_option = 'gpus': must be one of gres, gpus-per-node"),
        ("qos = {a = 1}", ":1: qos = {'a': 1}: must be a text of one line"),
        ("hours = 3\nhours = 4\n", ":2: not TOML: Cannot overwrite a value"),
        ("hours =", "not TOML: Invalid value"),
        ("setup = 'none.sh'", ": setup: no such file '"),
    ],
)
def test_mistakes(site_file, text, message):
    path = site_file(text)
    with pytest.raises(InputError) as caught:
        parse_site(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_text(tmp_path):
    (tmp_path / "site.toml").write_bytes(b"hours = '\xff'")
    with pytest.raises(InputError, match=r"site\.toml: not UTF-8: .* at byte 9"):
        parse_site(tmp_path / "site.toml")


@pytest.mark.parametrize("name", ["none.toml", "~nobody-there/site.toml"])
def test_a_file_that_is_named_must_be_there(name):
    with pytest.raises(InputError, match=r"site file \(\$W2LTUNE_SITE\): no such file"):
        read_site({"W2LTUNE_SITE": name})


def test_the_example_names_every_key_with_its_default(site_file):
    text = EXAMPLE.read_text(encoding="utf-8")
    assert parse_site(EXAMPLE) == Site(file=EXAMPLE)
    keys = re.findall(r"^# (\w+) = ", text, re.MULTILINE)
    assert sorted(keys) == sorted(set(Site.__dataclass_fields__) - {"file"})
    shown = re.sub(r"^# (?=\w+ = )(?!hours)", "", text, flags=re.MULTILINE)
    path = site_file(shown)
    assert parse_site(path) == Site(file=path)
