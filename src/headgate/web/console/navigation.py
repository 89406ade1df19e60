"""The table of the console's pages: each module's routes and its entry of the navigation."""

from headgate.web.api import openapi, reference_page, routes
from headgate.web.app import Rule
from headgate.web.console import (
    accounts_page,
    audit_log_page,
    home_page,
    keys_page,
    models_page,
    people_page,
    playground_page,
    requests_page,
    start_page,
    upstream_keys_page,
    upstreams_page,
    usage_page,
)
from headgate.web.context import NavigationEntry

RULES: tuple[Rule, ...] = (
    *home_page.RULES,
    *start_page.RULES,
    *usage_page.RULES,
    *requests_page.RULES,
    *keys_page.RULES,
    *playground_page.RULES,
    *upstreams_page.RULES,
    *models_page.RULES,
    *accounts_page.RULES,
    *upstream_keys_page.RULES,
    *people_page.RULES,
    *audit_log_page.RULES,
    *routes.RULES,
    *openapi.RULES,
    *reference_page.RULES,
)

# In this order; the catalog's pages are made by site/, for strangers as well.
ENTRIES: tuple[NavigationEntry, ...] = (
    usage_page.ENTRY,
    requests_page.ENTRY,
    keys_page.ENTRY,
    playground_page.ENTRY,
    upstreams_page.ENTRY,
    models_page.ENTRY,
    accounts_page.ENTRY,
    people_page.ENTRY,
    audit_log_page.ENTRY,
    start_page.ENTRY,
    NavigationEntry("/models", "Models and prices", "see", "Reference"),
    NavigationEntry("/docs", "Docs", "see", "Reference"),
    reference_page.ENTRY,
)
