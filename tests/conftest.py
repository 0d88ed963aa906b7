"""One thread for every test: tiny networks lose more to thread hand-over than they gain."""

import torch

torch.set_num_threads(1)
