"""What every method, network and data set must show, as functions: ours are tested by them, and yours can be.

Each check takes what it is to look at, returns nothing, and raises `AssertionError` with a sentence that says what is wrong.
"""
