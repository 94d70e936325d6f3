"""Who may see the ledger: a function of the request, named by `PERMISSION`."""

from django.http import HttpRequest

__all__ = ["is_staff"]


def is_staff(request: HttpRequest) -> bool:
    """Members of staff, whom Django's own administration lets in."""
    user = getattr(request, "user", None)
    return bool(user is not None and user.is_authenticated and user.is_staff)
