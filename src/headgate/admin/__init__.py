"""Operations on keys, accounts and people: one function each, with its checks and its audit entry.

The command line, the console and the admin API call these; each only reads what it was sent and shows
what came of it.
"""
