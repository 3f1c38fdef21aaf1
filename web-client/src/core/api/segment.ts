// Ids of others in addresses of ours.

/** One segment of a path. The two that no escaping keeps in their place are ids of nothing, and asked for nowhere. */
export function segment(id: string): string {
  if (id === '.' || id === '..') throw new RangeError('not an id');
  return encodeURIComponent(id);
}
