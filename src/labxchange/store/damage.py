"""What this node wrote itself and cannot read back is damage on its disk, told as that and never as a contact's mistake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cryptography.exceptions import InvalidTag
from sqlalchemy.exc import IntegrityError as ConstraintBroken
from sqlalchemy.exc import NoResultFound

from labxchange.errors import IntegrityError

DAMAGED = "database-damaged"
HINT = "Keep a copy of the folder, then restore your last backup with `labxchange node restore`."


def damaged(what: str) -> IntegrityError:
    """``database-damaged``; ``what`` begins the sentence."""
    return IntegrityError(DAMAGED, f"{what} is damaged in the node's database.", hint=HINT)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Around what decodes, opens or verifies a stored value.

    Raises:
        IntegrityError: ``database-damaged``; ``unsupported-version`` as it came: newer software wrote it.
    """
    try:
        yield
    except IntegrityError as error:
        if error.code in (DAMAGED, "unsupported-version"):
            raise
        raise damaged(what) from None
    except (InvalidTag, ConstraintBroken, NoResultFound, ValueError, TypeError, AttributeError):  # or of another type than it was
        raise damaged(what) from None
