"""Which members vote, and how, chosen by patients that none of them was trained on."""
