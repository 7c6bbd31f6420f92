from bench.systems import OWN, ROWS, comparison
from fsclap.comparison.settings import BASE
from fsclap.model.systems import SYSTEMS


def test_every_system_has_a_row_and_so_has_the_default_of_the_project() -> None:
    assert set(ROWS) == {*SYSTEMS, *OWN}
    assert ROWS[0] == BASE
    assert comparison(ROWS, 3, None).rows()["fs_clap, no fusion"].model.fusion == "none"


def test_rows_and_budget_can_be_chosen() -> None:
    few = comparison(["fs_clap, no fusion", "audioclip"], 2, 5)
    assert list(few.rows()) == ["audioclip", "fs_clap, no fusion"]
    assert (few.seeds, few.train_settings("audioclip", 1).epochs) == (2, 5)
