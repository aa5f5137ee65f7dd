"""From a list of stages to units of work with names: the plan, its checks, and what the name of a unit is made of."""
