"""Getting work done in many processes and on many machines; knows storms only as "run this task"."""
