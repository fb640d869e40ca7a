from __future__ import annotations

import pytest
from torch import nn

from corank import CorankError, Target
from corank.errors import FileError
from corank.methods import METHODS


def test_toml_and_json_are_the_same(tmp_path):
    (tmp_path / "t.toml").write_text(
        'multiple = 16\nmethods = ["spatial"]\nprecision = "bf16"\nmemory = 1000\n'
    )
    (tmp_path / "t.json").write_text(
        '{"multiple": 16, "methods": ["spatial"], "precision": "bf16", "memory": 1000}'
    )
    read = Target.read(tmp_path / "t.toml")
    assert read == Target.read(tmp_path / "t.json")
    assert read == Target(multiple=16, methods=("spatial",), precision="bf16", memory=1000)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"multipel": 8}, "unknown key 'multipel'; allowed are multiple, methods"),
        ({"multiple": 0}, "whole number from 1, got 0"),
        ({"multiple": True}, "whole number from 1"),
        ({"methods": ["magic"]}, "methods: unknown 'magic'"),
        ({"methods": "svd"}, "a list of names"),
        ({"operations": ["Conv9d"]}, "operations: unknown 'Conv9d'"),
        ({"grouped": 1}, "true or false"),
        ({"precision": "int3"}, "f32, bf16 or int8"),
        ({"memory": 0}, "bytes above 0"),
        ([], "a table of multiple"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(CorankError, match=message):
        Target.from_dict(values)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "bad.toml").write_text("=")
    for name, message in (
        ("bad.toml", "is not TOML"),
        ("absent.json", "cannot be read"),
        ("t.yaml", ".toml"),
    ):
        with pytest.raises(FileError, match=message):
            Target.read(tmp_path / name)


def test_a_structure_is_refused_for_operations_groups_and_memory():
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=2)
    chain = METHODS["filter_basis"].structure(layer, 2)
    assert Target().refusal(chain, (1, 8, 4, 4)) is None
    assert "operations" in str(Target(operations=("Linear",)).refusal(chain, (1, 8, 4, 4)))
    assert "2 groups" in str(Target(grouped=False).refusal(chain, (1, 8, 4, 4)))
    weights, maps = 4 * 8 * 2 // 2 * 9 * 4 // 4, (8 + 4) * 16 * 4
    need = 4 * (4 * 4 * 9) + maps
    assert weights > 0
    assert Target(memory=need).refusal(nn.Sequential(chain[0]), (1, 8, 4, 4)) is None
    assert "bytes" in str(Target(memory=need - 1).refusal(nn.Sequential(chain[0]), (1, 8, 4, 4)))
