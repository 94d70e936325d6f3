"""Evidence: whether the record is complete, whether it was tampered with, and taking things out.

check(uri, policy)   -> what lacks, what never came, what is unknown     `evidence.py`, `policy.py`
verify(uri)          -> what was changed, added or removed               `proof.py`
export, verify_file  -> a signed file that is proven without a database  `bundle.py`
purge, erase         -> content gone for good, the chain still whole     `erasure.py`
"""

__all__: list[str] = []
