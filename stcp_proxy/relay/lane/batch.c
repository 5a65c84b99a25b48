/* Batch small writes: one wake-up of the receiver then drains several messages.
 *
 * A send wakes the process that waits for it. If each message of a batch is sent right after its cipher call, the receiver wakes up,
 * serves one message and sleeps again. So small writes are kept here while a batch of events is served. They are sent when MAX_KEPT are
 * kept, before a large write, at the end of the batch, and before any call of Python, which may send on the same connection or end it.
 */
#include "lane.h"

/* Whether a write of this connection is kept. */
bool has_kept_write(const Lane *lane, const PyObject *duplex)
{
	for (int i = 0; i < lane->kept; i++) {
		if (lane->writes[i].duplex == duplex)
			return true;
	}
	return false;
}

/* Send every kept write, then report the failed and the short ones to Python, which may send on a connection or end it.
 * False with an exception. */
bool send_kept_writes(Lane *lane)
{
	const struct kept_write *writes = lane->writes; /* stays valid: steps that Python starts keep no writes */
	ssize_t done[MAX_KEPT];
	int error[MAX_KEPT], kept = lane->kept;
	bool fine = true;

	lane->kept = 0;
	for (int i = 0; i < kept; i++) {
		done[i] = alive(lane, writes[i].duplex, writes[i].to) ? transmit(writes[i].to, writes[i].bytes, writes[i].size) :
									(ssize_t)writes[i].size;
		error[i] = errno;
	}
	for (int i = 0; i < kept; i++) {
		if (fine)
			fine = finish_send(lane, writes[i].duplex, writes[i].wire, writes[i].bytes, writes[i].size, done[i], error[i]) ||
			       report_bug(lane, writes[i].duplex);
		Py_DECREF(writes[i].duplex);
	}
	return fine;
}

/* Keep a copy of a small write; send the others first if there is no room. False with an exception. */
bool keep_write(Lane *lane, PyObject *duplex, int to, bool wire, const uint8_t *from, size_t size)
{
	struct kept_write *write;

	if (lane->kept == MAX_KEPT && !send_kept_writes(lane))
		return false;
	write = &lane->writes[lane->kept++];
	write->duplex = Py_NewRef(duplex);
	write->to = to;
	write->wire = wire;
	write->size = size;
	memcpy(write->bytes, from, size);
	return true;
}
