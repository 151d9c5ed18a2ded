"""Files of other libraries, read into a pipeline and written from one."""
