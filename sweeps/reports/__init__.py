"""From the ledger to something that people read: status, tables, figures, pages."""
