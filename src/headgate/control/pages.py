"""The table of the console's pages: each module's routes."""

from headgate.control import (
    accounts_page,
    admin,
    changes_page,
    home,
    keys_page,
    openapi,
    people_page,
    playground,
    reference,
    requests_page,
    upstreams,
    usage_page,
)
from headgate.control.app import Rule

RULES: tuple[Rule, ...] = (
    *home.RULES,
    *usage_page.RULES,
    *requests_page.RULES,
    *keys_page.RULES,
    *playground.RULES,
    *upstreams.RULES,
    *accounts_page.RULES,
    *people_page.RULES,
    *changes_page.RULES,
    *admin.RULES,
    *openapi.RULES,
    *reference.RULES,
)
