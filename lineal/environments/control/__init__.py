"""Control tasks: many copies of one environment stepped as a batch, our own or Gymnasium's, behind one protocol."""
