"""The pipeline of an exchange: prepare, admit, attempt, deliver (streamed or whole), record.

Each step is a module that takes the exchange and what the step before made of it:

    prepare   the body becomes a request, its routes and its estimate; reasoning is put back
    admit     limits and budgets reserve what all routes may cost, and the intent record is committed
    attempt   the routes are asked in their order, until one begins to answer
    deliver   its reply goes to the client, as a stream or as one body
    record    the row is committed before the reply ends, and the exchange is counted and logged once
"""
