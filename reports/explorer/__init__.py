"""The data and charts of the explorer: any recorded quantity by layer, epoch, network and seed."""
