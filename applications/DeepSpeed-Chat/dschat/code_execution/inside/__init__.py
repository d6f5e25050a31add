"""What runs inside the sandbox: the zygote and the child it forks for each job. Standard library only."""
