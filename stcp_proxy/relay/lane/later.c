/* Small sends of one batch go out together.
 *
 * Whoever waits for a message is woken by its send. Where the messages of a batch are sent one by one, each between two turns of the
 * cipher, the other process wakes, serves one and sleeps again; where some leave at once, it finds them all. So while a batch is
 * served, what is small is kept here, and goes out when FEW have come, or something else is to happen: a large message, the end of
 * the batch, and above all any call of Python, which may send on the same connection, or end it.
 */
#include "lane.h"

/* Send one that was kept, unless its connection has ended meanwhile. False with an exception that is no bug of a step. */
static bool send_now(Lane *lane, const struct later *later)
{
	const uint8_t *from = lane->kept_bytes + later->at;
	bool alive = later->to < lane->room && lane->legs[later->to].duplex == later->duplex;

	return !alive || sent(lane, later->duplex, later->to, later->wire, from, later->size) || tell(lane, later->duplex);
}

bool send_kept(Lane *lane)
{
	bool done = true;

	while (done && lane->first < lane->kept) {
		struct later later = lane->later[lane->first++]; /* taken out first: what is called may come here again */

		done = send_now(lane, &later);
		Py_DECREF(later.duplex);
	}
	if (lane->first == lane->kept)
		lane->first = lane->kept = 0;
	return done;
}

bool keep(Lane *lane, PyObject *duplex, int to, bool wire, const uint8_t *from, size_t size)
{
	struct later *later;

	if (lane->kept == FEW && !send_kept(lane))
		return false;
	later = &lane->later[lane->kept];
	*later = (struct later){ Py_NewRef(duplex), to, wire, (size_t)lane->kept * SMALL, size };
	memcpy(lane->kept_bytes + later->at, from, size);
	lane->kept++;
	return true;
}
