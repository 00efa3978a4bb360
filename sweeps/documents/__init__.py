"""What commands tell programs: one document each, of the same readings that people see; `docs/automation.md` has their keys."""
