"""From floats to 8 bits: what is quantised, by which scales, and what that costs.

    histogram.py   what values a tensor takes over all calibration data
    observers.py   histogram -> range, by one of several rules
    scales.py      range -> scale and zero point; weights -> s8
    placement.py   which values are stored in 8 bits, and which share a scale
    insert.py      QuantizeLinear and DequantizeLinear put into a graph
    simulate.py    a graph whose quantisation is steered at run time, for trying ranges
    equalise.py    channel ranges balanced across layers, the function unchanged
    spread.py      channels of inputs with ranges of their own, brought to one
    ends.py        the least and the largest number of each channel
    rounding.py    weights rounded by what a layer's results lose
    correct.py     biases that make up for the mean error of quantised weights
    record.py      a calibration as readable text

Nothing here runs a network: room `pipeline` hands in what runs it.
"""
