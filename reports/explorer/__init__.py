"""The explorer of the HTML page: any recorded quantity by layer, epoch, network and seed."""
