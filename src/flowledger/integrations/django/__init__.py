"""The Django application: context of requests, saved models, the ledger's pages, `manage.py`.

Put `flowledger.integrations.django` among `INSTALLED_APPS`. Settings are in `FLOWLEDGER`, a map.
"""
