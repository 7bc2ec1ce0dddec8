"""Promotion and rollback: challenger against champion, the gate's verdict, the alias and the decision log."""
