"""Playing a trace of arrivals through a small application that is recorded: demo and replay.

arrivals -> scenario -> pace -> application -> outcome
when        what, who   at its  the client's   what is stored,
how much    and why     time    calls          and how to look
"""
