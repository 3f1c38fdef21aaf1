-- Mails about an account: which letter, and the way it points to (a secret, wiped once the mail is sent or given up).
ALTER TABLE delivery ADD COLUMN letter TEXT NOT NULL DEFAULT 'notification';
ALTER TABLE delivery ADD COLUMN url TEXT;
