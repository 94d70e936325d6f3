"""How fast flowledger is, beside what people use today, measured in the same run.

`make bench` runs every subject and prints one table. A subject is a module with a function
`measure(quick) -> list[Row]`; whatever it measures runs in processes of their own
(`bench.children`), on loopback and in temporary folders.
"""
