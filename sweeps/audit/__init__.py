"""Proofs: nothing lost, nothing twice, and the same result again."""
