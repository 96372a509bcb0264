"""How good an adapter is, and which checkpoint becomes one."""
