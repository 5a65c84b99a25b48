/* A buffer object whose start and size can be changed. It tells the cipher where a frame is, without a new object for each frame. */
#include "lane.h"

static int span_getbuffer(PyObject *self, Py_buffer *view, int flags)
{
	Span *span = (Span *)self;

	return PyBuffer_FillInfo(view, self, span->at, span->size, 0, flags);
}

static PyBufferProcs span_buffer = { .bf_getbuffer = span_getbuffer };

static Py_ssize_t span_length(PyObject *self)
{
	return ((Span *)self)->size;
}

static PySequenceMethods span_sequence = { .sq_length = span_length };

PyTypeObject SpanType = {
	/* clang-format off */ /* the macro below ends in a comma */
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "stcp_proxy.relay._lane.Span",
	/* clang-format on */
	.tp_basicsize = sizeof(Span),
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_as_buffer = &span_buffer,
	.tp_as_sequence = &span_sequence,
};

Span *span_new(uint8_t *at, Py_ssize_t size)
{
	Span *span = PyObject_New(Span, &SpanType);

	if (span) {
		span->at = at;
		span->size = size;
	}
	return span;
}
