"""The decision, as functions of what a trial wrote down: statistics, money, the policy, the gate."""
