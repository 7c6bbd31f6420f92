"""One site, and what an undisturbed chain makes of it, for all campaigns."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.faults.campaign import Reference, reference
from harness.faults.site import Site, site


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture(scope="session")
def undisturbed(videos: Site, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder: Path = tmp_path_factory.mktemp("undisturbed")
    return reference(folder, videos)
