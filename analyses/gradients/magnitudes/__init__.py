"""How large are activations and gradients, and would float16 lose the small ones?"""
