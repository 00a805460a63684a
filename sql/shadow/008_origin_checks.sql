-- The position is written with every transaction, and each write would have the server read the text of
-- these conditions anew (nodeModifyTable.c, ExecConstraints: the state of a statement lasts as long as it).
-- Nobody but the platform writes here.
ALTER TABLE scry_shadow.origin
    DROP CONSTRAINT origin_only_row_check,
    DROP CONSTRAINT origin_copy_state_check;
