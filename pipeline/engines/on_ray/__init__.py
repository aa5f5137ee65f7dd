"""The units of a plan on Ray: no other module of the machine imports it."""
