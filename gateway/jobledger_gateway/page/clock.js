/** The server's time, as far as a browser can know it, and how times are written. */

let offset = 0;
// Made once: to make it takes a hundred times as long as to use it.
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** Learn the server's time from the `Date` of an answer. Less than 2 s apart is no difference. */
export function learnTime(date) {
  const apart = Date.parse(date) + 500 - Date.now();
  if (!Number.isNaN(apart)) offset = Math.abs(apart) < 2000 ? 0 : apart;
}

/** Return the server's time in milliseconds since 1970. */
export function now() {
  return Date.now() + offset;
}

/** Write a number of seconds: `40 s`, `12 min`, `3 h 5 min`, `2 d 4 h`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 ? `${days} d ${hours % 24} h` : `${days} d`;
}

/** Return the seconds from a timestamp until now; negative if it is still to come. */
export function since(timestamp) {
  return (now() - Date.parse(timestamp)) / 1000;
}

/** Whether a time is still to come; an unset one is not. */
export function isToCome(timestamp) {
  return Date.parse(timestamp) > now();
}

/** Write how long ago something was, or how soon it will be. */
export function relative(timestamp) {
  const seconds = since(timestamp);
  if (Math.abs(seconds) < 1) return "now";
  return seconds < 0 ? `in ${duration(-seconds)}` : `${duration(seconds)} ago`;
}

/** Write a time in full, in the reader's time zone. */
export function absolute(timestamp) {
  return full.format(new Date(timestamp));
}

/** Write a time as the value of a field for the reader's own time, to the second. */
export function localTime(timestamp) {
  const time = new Date(timestamp);
  return new Date(time - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

/** Read a protobuf duration (`1.5s`) as seconds. */
export function seconds(text) {
  return Number.parseFloat(text);
}
