from pathlib import Path

import pytest

from vitrail.data.records import ReadOptions
from vitrail.errors import ConfigError
from vitrail.reading import read_options
from vitrail.runs import RunDirectory


def test_without_a_run_nothing_is_asked_for() -> None:
    assert read_options(None) == ReadOptions()
    assert read_options(None, ("digits",), offline=True) == ReadOptions(offline=True)


def test_settings_are_parsed_and_checked() -> None:
    settings = {"data.label_column": "species", "data.num_workers": "3", "data.group_column": "none"}
    asked = read_options(None, ("birds.parquet",), settings)
    assert (asked.label_column, asked.num_workers, asked.group_column) == ("species", 3, None)
    with pytest.raises(ConfigError, match=r"^data\.num_workers=0 is not possible; use a number greater than 0$"):
        read_options(None, ("birds.parquet",), {"data.num_workers": "0"})
    with pytest.raises(
        ConfigError, match=r"^training\.epochs says nothing about reading data; what does is data\.image_c"
    ):
        read_options(None, (), {"training.epochs": "3"})
    with pytest.raises(
        ConfigError, match=r"^No setting named 'data\.lable_column'\. Did you mean 'data\.label_column'\?"
    ):
        read_options(None, (), {"data.lable_column": "x"})


def test_columns_are_refused_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.group_column=patient is for tables, and .* is none; leave it out$"):
        read_options(None, (str(tmp_path),), {"data.group_column": "patient"})
    assert read_options(None, (str(tmp_path),), {"data.group_column": "none"}) == ReadOptions()


def test_a_runs_columns_are_looked_for_in_other_tables_alone(digits_run: Path, tmp_path: Path) -> None:
    config = (digits_run / "config.json").read_text(encoding="utf-8")
    (tmp_path / "config.json").write_text(config.replace('"label_column": null', '"label_column": "species"'))
    run = RunDirectory(tmp_path)
    assert read_options(run).label_column == "species"
    assert read_options(run, ("more.parquet",)).label_column == "species"
    assert read_options(run, ("more.parquet",), {"data.label_column": "kind"}).label_column == "kind"
    assert read_options(run, (str(tmp_path),)).label_column is None
