"""`python -m tests.release`: what a release is made of. `make dist` runs all but `notes`.

- `build`: sdist and wheel, twice, compared and checked.
- `smoke [PYTHON…]`: the wheel alone in fresh environments of these Pythons. Default: this one.
- `sbom`: what the wheel installs, as CycloneDX, in `build/`.
- `notes TAG`: print the section of the changelog for a tag. Refuses a tag that is not the version.
"""

from __future__ import annotations

import sys

from tests.release import building, changelog, environments


def main(arguments: list[str]) -> None:
    """Run one of the commands."""
    match arguments:
        case ["build"]:
            building.build()
        case ["smoke", *pythons]:
            environments.smoke(pythons)
        case ["sbom"]:
            environments.bill_of_materials()
        case ["notes", tag]:
            print(changelog.notes(tag))
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
