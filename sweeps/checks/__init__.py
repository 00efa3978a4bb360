"""What a sweep file must hold; called by whoever makes a sweep out of a file or out of the ledger."""
